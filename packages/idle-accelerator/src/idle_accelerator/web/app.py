"""Entry of the page: ``streamlit run`` executes this file for every viewer and every change."""

import streamlit as st

from idle_accelerator.web import language, plain
from idle_accelerator.web.faults import where
from idle_accelerator.web.language import say


def main() -> None:
    st.set_page_config(page_title="idle-accelerator", page_icon=":material/hub:", layout="wide")
    with st.sidebar:
        language.switch()
        st.caption(f"**idle-accelerator** · {say('app.about')}")
        st.caption(say("app.scheduler", url=plain.label(where())))
    language.remember()
    page = st.navigation(
        [
            st.Page(
                "views/overview.py",
                title=say("page.overview"),
                icon=":material/dashboard:",
                url_path="overview",
                default=True,
            ),
            st.Page("views/submit.py", title=say("page.submit"), icon=":material/send:", url_path="submit"),
            st.Page("views/jobs.py", title=say("page.jobs"), icon=":material/list_alt:", url_path="jobs"),
            st.Page(
                "views/job.py",
                title=say("page.job"),
                icon=":material/work:",
                url_path="job",
                visibility="hidden",
            ),
            st.Page("views/nodes.py", title=say("page.nodes"), icon=":material/dns:", url_path="nodes"),
        ]
    )
    page.run()


main()
